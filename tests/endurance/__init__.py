"""The failures that were mended, kept mended: long seeded campaigns outside the default tests.

python -m tests.endurance [--seed N] [--only NAME] [--quick] [--cases N] [--case N]

Each campaign is a file here and tries so many cases; the command ends with one table and exits with
1 when a case failed. A failure is told with the arguments that repeat it alone.
"""
