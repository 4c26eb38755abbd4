"""The engine: a bundle, token ids in, token ids and text out. `records` crosses its borders.

scheduling   who computes when: the one thread, the batch, one request's sequence
kept         texts that are kept for those that begin as they did
graphs       sessions of onnxruntime, and `rows` of cached tokens over them
drafting     tokens that are guessed and verified, several in a step
grammars     answers of a given form
sampling     logits to the next token; logprobs tells how likely it was
text         prompts to ids, ids to text
twin         INT8 weights for prompts, derived from the INT4 ones
embed        texts to vectors, with an encoder
"""
