"""Guessed tokens: what may come next, how many of it are worth verifying, and how they are verified.

A decoder reads several tokens in hardly more time than one, so tokens that were guessed cheaply are read together,
and those that the model would have chosen itself are kept. No guess changes what is generated, see `verify`.

    verify.py   guesses and logits -> the tokens that came true
    ngram.py    what followed where the newest tokens stood before
    model.py    what a smaller model says
    lengths.py  how many guesses pay
    guesser.py  all of it together: what one request needs
"""
