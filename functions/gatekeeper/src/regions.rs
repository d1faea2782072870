//! The stores of all regions, and which of them decides about a name.

use std::{collections::BTreeMap, sync::Arc};

use infrachat_metadata::Metadata;
use infrachat_types::{Region, UserName};

use crate::StartError;

/// A region and its store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Store<'a> {
    pub(crate) region: &'a Region,
    pub(crate) metadata: &'a dyn Metadata,
}

/// The stores of all regions.
#[derive(Debug)]
pub(crate) struct Regions {
    local: Region,
    local_store: Arc<dyn Metadata>,
    stores: BTreeMap<Region, Arc<dyn Metadata>>,
    names: Vec<String>,
}

impl Regions {
    pub(crate) fn new(
        local: Region,
        stores: BTreeMap<Region, Arc<dyn Metadata>>,
    ) -> Result<Self, StartError> {
        let Some(local_store) = stores.get(&local).cloned() else {
            return Err(StartError::NoLocalStore(local));
        };
        Ok(Self {
            names: stores.keys().map(ToString::to_string).collect(),
            local,
            local_store,
            stores,
        })
    }

    pub(crate) fn local(&self) -> Store<'_> {
        Store {
            region: &self.local,
            metadata: &*self.local_store,
        }
    }

    /// Where the name is decided.
    pub(crate) fn home_of(&self, user: &UserName) -> Store<'_> {
        let home = infrachat_routing::home_region(user.as_str(), &self.names);
        self.all()
            .find(|store| home == Some(store.region.as_str()))
            .unwrap_or(self.local())
    }

    pub(crate) fn get(&self, region: &Region) -> Option<Store<'_>> {
        self.all().find(|store| store.region == region)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Store<'_>> {
        self.stores.iter().map(|(region, metadata)| Store {
            region,
            metadata: &**metadata,
        })
    }
}
