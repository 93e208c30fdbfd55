"""The twin: the same engine under a virtual clock, with simulated terminals, access servers and carriers.

``replay(scenario_path)`` gives the figures of each policy, ``document`` what of it is published as JSON, ``plot`` the
picture. The scenarios' schema stands in ``simswitch.twin.scenario``; ``scenarios/`` has those that are shipped.
"""

from simswitch.twin.plot import plot
from simswitch.twin.replay import ReplayError, document, replay
from simswitch.twin.scenario import ScenarioError

__all__ = ["ReplayError", "ScenarioError", "document", "plot", "replay"]
