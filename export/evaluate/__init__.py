"""Evaluation: what a bundle lost against its source, in text and in tasks.

    reader.py     a bundle as something that turns ids into logits
    reference.py  the other side of a comparison: a bundle, or a checkpoint's own float weights
    text.py       windows of a text -> perplexity, KL divergence, same top token
    questions.py  task files -> questions; one table of the formats that are known
    prompts.py    questions -> prompt ids, by the model's chat template or as plain text
    answers.py    a reader answers questions; scores and agreement
    sandbox.py    runs programs that a model wrote, behind confine.py, and only when asked to

Everything is measured on logits of readers, so any engine that gives logits for ids can be compared by the same code.
"""
