"""Stands in for the API server: gives the first runner that registers one task, and prints what it is told of it."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TASKS = [{"id": 1, "type": "workflow", "config": {"type": "workflow", "steps": [{"run": "uname -a; echo $((6 * 7))"}]}}]
RUNNERS = {}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = {"ok": True}
        if self.path == "/internal/runners/register":
            name = json.loads(body)["pod_name"]
            answer = {"runner_id": RUNNERS.setdefault(name, len(RUNNERS) + 1), "task": None}
            if TASKS:
                answer["task"] = TASKS.pop()
                answer["callback_path"] = "/internal/tasks/1/stream"
                print(f"{name} gets the task", flush=True)
        elif self.path.endswith("/stream"):
            print(body.decode(), flush=True)
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Requests say nothing that is not printed above."""


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()
