"""Publishing: a bundle becomes a signed release in a repository of plain files (edgekit/release says the formats).

    open repository -> chunk -> pack -> differences -> manifest -> sign releases, rollout, snapshot -> timestamp last

Everything but `timestamp.json` is immutable, and that is replaced last: a publish that is cut off anywhere leaves what
was served before.
"""
