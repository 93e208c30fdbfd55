"""The twin: the same engine under a virtual clock, with simulated terminals, access servers and carriers.

``replay(scenario_path)`` gives the figures of each policy, ``document`` what of it is published as JSON, ``plot`` and
``plot_servers`` the pictures; ``record`` writes a history. The scenarios' schema stands in ``simswitch.twin.scenario``;
``scenarios/`` has those that are shipped.
"""

from simswitch.twin.plot import plot, plot_servers
from simswitch.twin.replay import ReplayError, document, record, replay
from simswitch.twin.scenario import ScenarioError

__all__ = ["ReplayError", "ScenarioError", "document", "plot", "plot_servers", "record", "replay"]
