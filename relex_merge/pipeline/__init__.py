"""One run: recipe in; finished folder, report or dry run out."""
