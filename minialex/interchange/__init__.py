"""Networks for other programs: safetensors and ONNX files."""

from minialex.interchange.exporting import Network, export_network, network_of
from minialex.interchange.onnx_file import export_onnx
from minialex.interchange.state_dicts import write_safetensors

__all__ = ["Network", "export_network", "export_onnx", "network_of", "write_safetensors"]
