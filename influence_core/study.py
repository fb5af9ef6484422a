"""placeholder"""


class Study: ...
