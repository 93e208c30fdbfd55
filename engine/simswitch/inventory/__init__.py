"""The inventory as files: what an operation is made of, and which SIMs it has.

Three files, each optional in an import:

    definitions (TOML)   the few things: suppliers, plans, classes, markets, banks, access servers (definitions.py)
    lots (CSV)           one line for each purchase (lots.py)
    SIMs (CSV)           one line for each card, with what it has already used and who holds it now (sims.py)

A file with a problem is refused as a whole, and every problem names its line, column and value and says what to do
(problems.py). importer.py takes what was read to the service.
"""
