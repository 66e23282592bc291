"""Models as files: reading them, putting them into a repository, finding what is wrong there."""

import os

from adapter.standalone.triton import NO_TELEMETRY

# Before the first import of onnxruntime, which looks at it once.
for _name, _value in NO_TELEMETRY.items():
    os.environ.setdefault(_name, _value)
