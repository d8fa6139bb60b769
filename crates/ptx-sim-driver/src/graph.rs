//! Graphs: captured work as data, submitted as often as one likes.

use std::sync::Arc;

use crate::code::{Code, Error, Res, fail};
use crate::driver::Driver;
use crate::objects::{Exec, Graph, Handle, Site};
use crate::queue::{OpId, Work};

const AUTO_FREE_ON_LAUNCH: u64 = 1;
const UPLOAD: u64 = 2;
const USE_NODE_PRIORITY: u64 = 8;

impl Driver {
    fn graph(&mut self, handle: Handle) -> Res<&Graph> {
        self.ctx()?;
        let unknown = || Error::new(Code::INVALID_HANDLE, format!("{handle:#x} is no graph"));
        self.graphs.get(&handle).ok_or_else(unknown)
    }

    pub(crate) fn graph_nodes(&mut self, handle: Handle) -> Res<usize> {
        Ok(self.graph(handle)?.nodes.len())
    }

    pub(crate) fn instantiate(&mut self, handle: Handle, flags: u64) -> Res<Handle> {
        let graph = self.graph(handle)?.clone();
        // There is nothing to free in these graphs, and priorities are no order here.
        if flags & !(AUTO_FREE_ON_LAUNCH | UPLOAD | USE_NODE_PRIORITY) != 0 {
            return fail(
                Code::INVALID_VALUE,
                format!("graph flags {flags:#x}: launches from the device are not simulated"),
            );
        }
        let exec = self.handle();
        self.execs.insert(exec, Exec { graph, last: None });
        Ok(exec)
    }

    pub(crate) fn destroy_graph(&mut self, handle: Handle) -> Res<()> {
        self.graph(handle)?;
        self.graphs.remove(&handle);
        Ok(())
    }

    fn exec(&mut self, handle: Handle) -> Res<&mut Exec> {
        self.ctx()?;
        let unknown =
            || Error::new(Code::INVALID_HANDLE, format!("{handle:#x} is no executable graph"));
        self.execs.get_mut(&handle).ok_or_else(unknown)
    }

    pub(crate) fn destroy_exec(&mut self, handle: Handle) -> Res<()> {
        self.exec(handle)?;
        self.execs.remove(&handle);
        Ok(())
    }

    pub(crate) fn upload_graph(&mut self, at: Site, handle: Handle, stream: Handle) -> Res<()> {
        self.exec(handle)?;
        self.stream(at, stream).map(drop)
    }

    pub(crate) fn launch_graph(&mut self, at: Site, handle: Handle, stream: Handle) -> Res<()> {
        let exec = self.exec(handle)?;
        let (nodes, last) = (Arc::clone(&exec.graph.nodes), exec.last);
        let key = self.stream(at, stream)?;
        self.legacy_is_free(key)?;
        if self.known(key)?.capture.is_some() {
            return Err(self.invalidate(key, "launching a graph into a graph (not simulated)"));
        }
        let launches = nodes.iter().filter(|n| matches!(n.work, Work::Launch(_))).count();
        for _ in 0..launches {
            self.count_launch()?;
        }
        let mut before = self.before(key);
        before.extend(last);
        let mut ids: Vec<OpId> = Vec::with_capacity(nodes.len());
        for node in nodes.iter() {
            let mut deps: Vec<OpId> = node.after.iter().map(|&i| ids[i]).collect();
            if deps.is_empty() {
                deps.clone_from(&before);
            }
            let submitted = self.queue.submit(node.name.clone(), &deps, node.work.clone());
            ids.push(self.checked(submitted)?);
        }
        // An empty graph still comes after what is there.
        ids.extend(before);
        let end = self.queue.submit(at.name.into(), &ids, Work::Marker);
        let end = self.checked(end)?;
        self.exec(handle)?.last = Some(end);
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.tail = Some(end);
        }
        Ok(())
    }
}
