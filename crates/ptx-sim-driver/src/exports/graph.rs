//! `cuGraph*`.

use super::entries;
use crate::code::{Code, fail};
use crate::ffi::{In, Out};
use crate::objects::Handle;

entries! {
    cuGraphInstantiateWithFlags: (exec: Out<Handle>, graph: Handle, flags: u64) needs Init
        => |d, _at| {
        let handle = d.instantiate(graph, flags)?;
        exec.put(handle)
    }
    cuGraphInstantiate_v2: (
        exec: Out<Handle>,
        graph: Handle,
        _node: Out<Handle>,
        log: Out<u8>,
        bytes: usize,
    ) needs Init => |d, _at| {
        if bytes > 0 {
            log.put_if_any(0);
        }
        let handle = d.instantiate(graph, 0)?;
        exec.put(handle)
    }
    cuGraphDestroy: (graph: Handle) needs Init => |d, _at| {
        d.destroy_graph(graph)
    }
    cuGraphExecDestroy: (exec: Handle) needs Init => |d, _at| {
        d.destroy_exec(exec)
    }
    cuGraphLaunch | cuGraphLaunch_ptsz: (exec: Handle, stream: Handle) needs Init => |d, at| {
        d.launch_graph(at, exec, stream)
    }
    cuGraphUpload | cuGraphUpload_ptsz: (exec: Handle, stream: Handle) needs Init => |d, at| {
        d.upload_graph(at, exec, stream)
    }
    cuGraphGetNodes: (graph: Handle, nodes: In<Handle>, count: Out<usize>) needs Init
        => |d, _at| {
        if !nodes.is_null() {
            return fail(Code::NOT_SUPPORTED, "nodes have no handles here, only a number");
        }
        let n = d.graph_nodes(graph)?;
        count.put(n)
    }
}
