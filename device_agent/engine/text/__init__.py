"""Between text and token ids: prompts to ids, ids to text that a reader may see, and how a token is spelt."""
