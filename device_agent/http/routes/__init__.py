"""The routes: one file for each part of the API, with `routes(services, settings)` and its table `ROUTES`.

A route reads as: who asks, what (schema), a visit, an exchange, the answer in its dialect (replies).
"""
