"""Help below all of sparc: files written as a whole (`files`), names (`names`), the memory of the process (`memory`).

`refusals` words what the machine refuses, and `hub` gets files from the Hugging Face Hub at a commit.
"""
