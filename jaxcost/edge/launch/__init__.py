"""Launch lines and manifests of serving engines for a deployment."""

from jaxcost.edge.launch.arguments import server_arguments
from jaxcost.edge.launch.deployment import Deployment, ServerPool, repository_of
from jaxcost.edge.launch.render import LAUNCHERS, default_launcher, render_launch

__all__ = [
    "LAUNCHERS",
    "Deployment",
    "ServerPool",
    "default_launcher",
    "render_launch",
    "repository_of",
    "server_arguments",
]
