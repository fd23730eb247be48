"""What a run or a comparison found, to look at: one self-contained page, and figures for print."""
