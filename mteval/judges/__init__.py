"""Vision-language models that answer questions about images: the contract, and what asks them (see asking.py)."""
