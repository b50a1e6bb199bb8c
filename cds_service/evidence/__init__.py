"""What proves the log afterwards: its chains, the day's signed manifests, and computing anew.

chain --> verification, manifests   was anything changed, removed or put in?
replay --> compared                 does the package still say what was logged?
settings_record                     which settings held when
"""
