//! Queries: read and checked once, then run as often as needed.

mod filter;
mod run;

use std::collections::BTreeSet;

use filter::Filter;
pub(super) use run::Results;

use super::{
    document::Document,
    error::{Error, Result},
    field_path::FieldPath,
    limits, order,
    path::{DatabaseName, Id, Path},
    proto::v1::{
        Cursor, StructuredQuery, Value,
        structured_query::{self, Direction},
        value::ValueType,
    },
    store::Scope,
};

/// A query, checked, with every default written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) database: DatabaseName,
    pub(super) scope: Scope,
    filter: Option<Filter>,
    /// Ends with the name, so that no two documents are equal.
    orders: Vec<Order>,
    start: Option<Edge>,
    end: Option<Edge>,
    offset: usize,
    limit: Option<usize>,
    required: Vec<FieldPath>,
    /// The fields to return; none for all.
    pub(super) projection: Option<Vec<FieldPath>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Order {
    field: FieldPath,
    descending: bool,
}

/// Where results start or end: a position in the order, given by its first values.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edge {
    prefix: Vec<u8>,
    /// The key of the first value, not turned over.
    first: Option<Vec<u8>>,
    /// Whether the position is before the documents that have just these values.
    before: bool,
}

impl Plan {
    pub(super) fn parse(
        database: &DatabaseName,
        parent: Path,
        query: StructuredQuery,
    ) -> Result<Self> {
        if query.find_nearest.is_some() {
            return Err(Error::Unimplemented(
                "Vector search is not available in this emulator.".to_owned(),
            ));
        }
        let scope = parse_scope(parent, query.from)?;
        let filter = query.r#where.map(Filter::parse).transpose()?;
        if let Some(filter) = &filter {
            filter.check()?;
        }
        let orders = parse_orders(query.order_by, filter.as_ref())?;
        let edge =
            |cursor: Option<Cursor>| cursor.map(|cursor| parse_edge(cursor, &orders)).transpose();
        let (start, end) = (edge(query.start_at)?, edge(query.end_at)?);
        let offset = usize::try_from(query.offset)
            .map_err(|_| Error::invalid("The offset must not be negative."))?;
        let limit = query
            .limit
            .map(|limit| {
                usize::try_from(limit)
                    .map_err(|_| Error::invalid("The limit must not be negative."))
            })
            .transpose()?;
        Ok(Self {
            database: database.clone(),
            scope,
            filter,
            orders,
            start,
            end,
            offset,
            limit,
            required: Vec::new(),
            projection: parse_projection(query.select)?,
        })
    }

    /// Whether a document's membership depends on the others.
    pub(super) fn is_bounded(&self) -> bool {
        self.limit.is_some() || self.has_offset()
    }

    pub(super) fn has_offset(&self) -> bool {
        self.offset > 0
    }

    /// Leaves out documents that lack one of the fields.
    pub(super) fn require(&mut self, fields: Vec<FieldPath>) {
        self.required = fields;
    }

    /// Whether the document is a result, the offset and the limit aside.
    pub(super) fn matches(&self, document: &Document) -> bool {
        self.scope.contains(document.path.collection()) && self.sort_key(document).is_some()
    }

    /// Where a matching document stands among the results; none if it is no match.
    fn sort_key(&self, document: &Document) -> Option<Vec<u8>> {
        let mut sort_key = Vec::with_capacity(96);
        for order in &self.orders {
            let mut key = document.key(&self.database, &order.field)?;
            if order.descending {
                order::invert(&mut key);
            }
            sort_key.append(&mut key);
        }
        let has_required = self
            .required
            .iter()
            .all(|field| field.get(&document.fields).is_some());
        let within = self
            .start
            .as_ref()
            .is_none_or(|start| start.is_before(&sort_key))
            && self
                .end
                .as_ref()
                .is_none_or(|end| !end.is_before(&sort_key));
        let matches = has_required
            && within
            && self
                .filter
                .as_ref()
                .is_none_or(|filter| filter.matches(&self.database, document));
        matches.then_some(sort_key)
    }
}

impl Edge {
    fn is_before(&self, sort_key: &[u8]) -> bool {
        if sort_key.starts_with(&self.prefix) {
            self.before
        } else {
            self.prefix.as_slice() < sort_key
        }
    }
}

fn parse_scope(parent: Path, mut from: Vec<structured_query::CollectionSelector>) -> Result<Scope> {
    if from.len() > 1 {
        return Err(Error::invalid(
            "A query can have only one collection selector.",
        ));
    }
    let selector = from.pop().unwrap_or_default();
    let collection = match selector.collection_id.as_str() {
        "" => None,
        id => Some(Id::parse(id)?),
    };
    Ok(Scope {
        parent,
        collection,
        all_descendants: selector.all_descendants,
    })
}

fn parse_orders(
    given: Vec<structured_query::Order>,
    filter: Option<&Filter>,
) -> Result<Vec<Order>> {
    let mut orders: Vec<Order> = Vec::with_capacity(given.len() + 1);
    for order in given {
        let descending = order.direction() == Direction::Descending;
        let field = order
            .field
            .ok_or_else(|| Error::invalid("An order has no field."))?;
        let field = FieldPath::parse(&field.field_path)?;
        if orders.iter().any(|order| order.field == field) {
            return Err(Error::invalid(format!(
                "The query orders by \"{field}\" more than once."
            )));
        }
        orders.push(Order { field, descending });
    }
    let descending = orders.last().is_some_and(|order| order.descending);
    let mut implied = BTreeSet::new();
    if let Some(filter) = filter {
        filter.each(&mut |field, test| {
            if test.is_inequality() && !field.is_name() {
                implied.insert(field.clone());
            }
        });
    }
    if implied.len() > 10 {
        return Err(Error::invalid(
            "The query has inequality filters on more than 10 fields.",
        ));
    }
    for field in implied.into_iter().chain([FieldPath::name()]) {
        if !orders.iter().any(|order| order.field == field) {
            orders.push(Order { field, descending });
        }
    }
    if orders.len() > limits::MAX_FILTERS_AND_ORDERS {
        return Err(Error::invalid("The query has too many orders."));
    }
    Ok(orders)
}

fn parse_edge(cursor: Cursor, orders: &[Order]) -> Result<Edge> {
    if cursor.values.len() > orders.len() {
        return Err(Error::invalid("Cursor has too many values."));
    }
    let mut prefix = Vec::new();
    let mut first = None;
    for (value, order) in cursor.values.iter().zip(orders) {
        let is_reference =
            |value: &Value| matches!(value.value_type, Some(ValueType::ReferenceValue(_)));
        if order.field.is_name() && !is_reference(value) {
            return Err(Error::invalid(
                "The cursor's value for __name__ must be a reference.",
            ));
        }
        let mut key = order::key(value);
        first.get_or_insert_with(|| key.clone());
        if order.descending {
            order::invert(&mut key);
        }
        prefix.append(&mut key);
    }
    Ok(Edge {
        prefix,
        first,
        before: cursor.before,
    })
}

fn parse_projection(
    select: Option<structured_query::Projection>,
) -> Result<Option<Vec<FieldPath>>> {
    let fields = select.map(|select| select.fields).unwrap_or_default();
    if fields.is_empty() {
        return Ok(None);
    }
    let mut paths = Vec::with_capacity(fields.len());
    for field in fields {
        let path = FieldPath::parse(&field.field_path)?;
        if !path.is_name() {
            paths.push(path);
        }
    }
    Ok(Some(paths))
}
