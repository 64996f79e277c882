"""What makes files of this tree from its code; run with ``-m``, never installed. ``make generated`` runs all."""
