"""Asks a Messages API one question with Anthropic's own client, and prints the message that came of its stream."""

import json
import sys
import warnings

import anthropic

# Kinds of blocks that this version does not know are kept, and complained about.
warnings.filterwarnings("ignore")

base_url, key, model = sys.argv[1:]
client = anthropic.Anthropic(base_url=base_url, api_key=key, max_retries=0)
question = [{"role": "user", "content": "Go."}]
with client.messages.stream(model=model, max_tokens=1000, messages=question) as stream:
    text = "".join(stream.text_stream)
    message = stream.get_final_message().model_dump(mode="json", exclude_unset=True)
print(json.dumps({"text": text, "message": message}))
