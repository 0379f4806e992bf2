"""What was measured: the nouns, the file that holds them, its writer and its reader."""
