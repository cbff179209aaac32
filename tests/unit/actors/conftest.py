import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # toy_families: importable here and, by inheritance, in the actors
