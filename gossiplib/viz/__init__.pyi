from . import plots as plots, timeline as timeline, widgets as widgets
from .widgets import explorer as explorer, scrubber as scrubber
