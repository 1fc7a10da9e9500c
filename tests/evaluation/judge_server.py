"""A server that speaks OpenAI's protocol on the loopback, and judges by counting the words of the answer."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RESPONSE = "###Response to evaluate:\n"


def planted(prompt):
    """Return the score that an answer deserves here: 1 and its words modulo 5."""
    answer = prompt.partition(RESPONSE)[2].partition("\n\n###")[0]
    return 1 + len(answer.split()) % 5


@contextmanager
def serving(status=200, told=None, body=None, busy=0):
    """Serve in a thread, busy at first; gives the address and the list of requests that came."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.path, dict(self.headers), asked))
            text = f"Feedback: planted. [RESULT] {planted(asked['messages'][0]['content'])}" if told is None else told
            message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "planted", "choices": [message]}
            data = json.dumps(whole | {"usage": usage, "system_fingerprint": ""}).encode() if status == 200 else b"no"
            data = data if body is None else body.encode()
            self.send_response(503 if len(requests) <= busy else status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        server.server_close()
