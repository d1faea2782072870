//! Methods that read.

use std::ops::Bound;

use crate::firestore::{
    aggregate::Aggregations,
    database::{Database, Databases, Snapshot},
    document::{Version, parse_mask},
    error::{Error, Result},
    field_path::FieldPath,
    partition,
    path::{DocumentPath, Id, Path, parse_parent},
    proto::v1::{
        self, StructuredQuery, batch_get_documents_response, partition_query_request,
        run_aggregation_query_request, run_query_request, structured_aggregation_query,
        structured_query,
    },
    query::Plan,
    store::Scope,
};

const PAGE: usize = 300;

pub(super) fn get(databases: &Databases, request: v1::GetDocumentRequest) -> Result<v1::Document> {
    let (database, path) = DocumentPath::parse(&request.name)?;
    let mask = parse_mask(request.mask)?;
    let database = databases.get(&database);
    let snapshot = database.snapshot(request.consistency_selector.into())?;
    let found = database.get(&snapshot, &[path])?;
    match found.into_iter().flatten().next() {
        Some(document) => Ok(document.to_proto(&database.name, mask.as_deref())),
        None => Err(Error::NotFound(format!(
            "Document \"{}\" not found.",
            request.name
        ))),
    }
}

pub(super) fn batch_get(
    databases: &Databases,
    request: v1::BatchGetDocumentsRequest,
) -> Result<Vec<v1::BatchGetDocumentsResponse>> {
    let database = databases.by_name(&request.database)?;
    let paths = request
        .documents
        .iter()
        .map(|name| DocumentPath::parse_in(&database.name, name))
        .collect::<Result<Vec<_>>>()?;
    let mask = parse_mask(request.mask)?;
    let snapshot = database.snapshot(request.consistency_selector.into())?;
    let found = database.get(&snapshot, &paths)?;
    let mut responses: Vec<_> = found
        .into_iter()
        .zip(request.documents)
        .map(|(document, name)| v1::BatchGetDocumentsResponse {
            result: Some(match document {
                Some(document) => batch_get_documents_response::Result::Found(
                    document.to_proto(&database.name, mask.as_deref()),
                ),
                None => batch_get_documents_response::Result::Missing(name),
            }),
            transaction: Vec::new(),
            read_time: Some(snapshot.time.into()),
        })
        .collect();
    if responses.is_empty() {
        responses.push(v1::BatchGetDocumentsResponse {
            read_time: Some(snapshot.time.into()),
            ..Default::default()
        });
    }
    responses[0].transaction = snapshot.new_transaction();
    Ok(responses)
}

pub(super) fn query(
    databases: &Databases,
    request: v1::RunQueryRequest,
) -> Result<Vec<v1::RunQueryResponse>> {
    refuse_explain(request.explain_options.is_some())?;
    let Some(run_query_request::QueryType::StructuredQuery(query)) = request.query_type else {
        return Err(Error::invalid("Query is not set."));
    };
    let (database, plan) = plan(databases, &request.parent, query)?;
    let snapshot = database.snapshot(request.consistency_selector.into())?;
    let results = database.query(&snapshot, &plan)?;
    let mut responses: Vec<_> = results
        .documents
        .iter()
        .map(|document| v1::RunQueryResponse {
            document: Some(document.to_proto(&database.name, plan.projection.as_deref())),
            read_time: Some(snapshot.time.into()),
            ..Default::default()
        })
        .collect();
    if responses.is_empty() {
        responses.push(v1::RunQueryResponse {
            read_time: Some(snapshot.time.into()),
            ..Default::default()
        });
    }
    responses[0].transaction = snapshot.new_transaction();
    responses[0].skipped_results = i32::try_from(results.skipped).unwrap_or(i32::MAX);
    Ok(responses)
}

pub(super) fn aggregate(
    databases: &Databases,
    request: v1::RunAggregationQueryRequest,
) -> Result<v1::RunAggregationQueryResponse> {
    refuse_explain(request.explain_options.is_some())?;
    let Some(run_aggregation_query_request::QueryType::StructuredAggregationQuery(aggregation)) =
        request.query_type
    else {
        return Err(Error::invalid("Query is not set."));
    };
    let Some(structured_aggregation_query::QueryType::StructuredQuery(query)) =
        aggregation.query_type
    else {
        return Err(Error::invalid("Query is not set."));
    };
    let aggregations = Aggregations::parse(aggregation.aggregations)?;
    let (database, mut plan) = plan(databases, &request.parent, query)?;
    plan.require(aggregations.fields());
    let snapshot = database.snapshot(request.consistency_selector.into())?;
    let results = database.query(&snapshot, &plan)?;
    Ok(v1::RunAggregationQueryResponse {
        result: Some(aggregations.compute(&results.documents)),
        transaction: snapshot.new_transaction(),
        read_time: Some(snapshot.time.into()),
        explain_metrics: None,
    })
}

pub(super) fn partition(
    databases: &Databases,
    request: v1::PartitionQueryRequest,
) -> Result<v1::PartitionQueryResponse> {
    let Some(partition_query_request::QueryType::StructuredQuery(query)) = request.query_type
    else {
        return Err(Error::invalid("Query is not set."));
    };
    let plain = query.r#where.is_none()
        && query.start_at.is_none()
        && query.end_at.is_none()
        && query.limit.is_none()
        && query.offset == 0
        && query.from.iter().all(|from| from.all_descendants);
    if !plain {
        return Err(Error::invalid(
            "Only collection group queries ordered by __name__, without filters, limits, offsets and cursors, can be partitioned.",
        ));
    }
    let count = usize::try_from(request.partition_count)
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| Error::invalid("partition_count must be greater than zero."))?;
    let (database, plan) = plan(databases, &request.parent, query)?;
    let snapshot = database.snapshot(request.consistency_selector.into())?;
    let results = database.query(&snapshot, &plan)?;
    let mut partitions = partition::cursors(&database.name, &results.documents, count);
    let start: usize = match request.page_token.as_str() {
        "" => 0,
        token => token.parse().map_err(|_| bad_token())?,
    };
    partitions.drain(..start.min(partitions.len()));
    let size = page_size(request.page_size, usize::MAX)?;
    let next_page_token = if partitions.len() > size {
        partitions.truncate(size);
        (start + size).to_string()
    } else {
        String::new()
    };
    Ok(v1::PartitionQueryResponse {
        partitions,
        next_page_token,
    })
}

pub(super) fn collection_ids(
    databases: &Databases,
    request: v1::ListCollectionIdsRequest,
) -> Result<v1::ListCollectionIdsResponse> {
    let (database, parent) = parse_parent(&request.parent)?;
    let size = page_size(request.page_size, PAGE)?;
    let after = match request.page_token.as_str() {
        "" => Bound::Unbounded,
        token => Bound::Excluded(Id::parse(token).map_err(|_| bad_token())?),
    };
    let database = databases.get(&database);
    let snapshot = database.snapshot(request.consistency_selector.into())?;
    let ids = database.inspect(&snapshot, |store, time| store.collection_ids(&parent, time))?;
    let mut ids: Vec<_> = ids
        .range((after, Bound::Unbounded))
        .take(size.saturating_add(1))
        .map(|id| id.as_str().to_owned())
        .collect();
    let more = ids.len() > size;
    ids.truncate(size);
    Ok(v1::ListCollectionIdsResponse {
        next_page_token: ids.last().filter(|_| more).cloned().unwrap_or_default(),
        collection_ids: ids,
    })
}

pub(super) fn list(
    databases: &Databases,
    request: v1::ListDocumentsRequest,
) -> Result<v1::ListDocumentsResponse> {
    let (name, parent) = parse_parent(&request.parent)?;
    let database = databases.get(&name);
    let mask = parse_mask(request.mask)?;
    let size = page_size(request.page_size, PAGE)?;
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(DocumentPath::parse_in(&name, token).map_err(|_| bad_token())?),
    };
    if request.show_missing && !request.order_by.is_empty() {
        return Err(Error::invalid(
            "show_missing cannot be used together with order_by.",
        ));
    }
    let scope = Scope {
        parent,
        collection: match request.collection_id.as_str() {
            "" => None,
            id => Some(Id::parse(id)?),
        },
        all_descendants: false,
    };
    let snapshot = database.snapshot(request.consistency_selector.into())?;
    let single = scope
        .single()
        .filter(|_| request.order_by.is_empty() && !snapshot.is_in_transaction());
    let mut rows = match single {
        Some(collection) => list_collection(
            &database,
            &snapshot,
            &collection,
            &after,
            size,
            request.show_missing,
        )?,
        None => list_ordered(&database, &snapshot, scope, &request.order_by, &after, size)?,
    };
    let more = rows.len() > size;
    rows.truncate(size);
    let documents: Vec<_> = rows
        .into_iter()
        .map(|row| match row {
            Row::Document(document) => document.to_proto(&database.name, mask.as_deref()),
            Row::Missing(path) => v1::Document {
                name: path.name(&database.name),
                ..Default::default()
            },
        })
        .collect();
    Ok(v1::ListDocumentsResponse {
        next_page_token: documents
            .last()
            .filter(|_| more)
            .map(|document| document.name.clone())
            .unwrap_or_default(),
        documents,
    })
}

/// A listed document, or the name of one that only has documents below it.
enum Row {
    Document(Version),
    Missing(DocumentPath),
}

/// One page and the row after it, of a collection by name.
fn list_collection(
    database: &Database,
    snapshot: &Snapshot,
    collection: &Path,
    after: &Option<DocumentPath>,
    size: usize,
    show_missing: bool,
) -> Result<Vec<Row>> {
    let lower = match after {
        Some(path) => Bound::Excluded(path.id()),
        None => Bound::Unbounded,
    };
    database.inspect(snapshot, |store, time| {
        let mut rows: Vec<_> = store
            .collection(collection)
            .into_iter()
            .flat_map(|found| found.range((lower, Bound::Unbounded), time))
            .take(size.saturating_add(1))
            .cloned()
            .map(Row::Document)
            .collect();
        if show_missing {
            let missing = store
                .ids_with_descendants(collection, time)
                .range((lower, Bound::Unbounded))
                .map(|id| DocumentPath::new(collection, id.clone()))
                .filter(|path| store.at(path, time).is_none())
                .map(Row::Missing)
                .collect::<Vec<_>>();
            rows.extend(missing);
            rows.sort_by(|a, b| a.path().cmp(b.path()));
        }
        rows
    })
}

impl Row {
    fn path(&self) -> &DocumentPath {
        match self {
            Self::Document(document) => &document.path,
            Self::Missing(path) => path,
        }
    }
}

/// One page and the row after it, in any order.
fn list_ordered(
    database: &Database,
    snapshot: &Snapshot,
    scope: Scope,
    order_by: &str,
    after: &Option<DocumentPath>,
    size: usize,
) -> Result<Vec<Row>> {
    let query = StructuredQuery {
        from: vec![structured_query::CollectionSelector {
            collection_id: scope
                .collection
                .as_ref()
                .map(|id| id.as_str().to_owned())
                .unwrap_or_default(),
            all_descendants: false,
        }],
        order_by: parse_order_by(order_by)?,
        ..Default::default()
    };
    let plan = Plan::parse(&database.name, scope.parent, query)?;
    let documents = database.query(snapshot, &plan)?.documents;
    let start = match after {
        None => 0,
        Some(after) => documents
            .iter()
            .position(|document| document.path == *after)
            .map_or(documents.len(), |at| at + 1),
    };
    Ok(documents
        .into_iter()
        .skip(start)
        .take(size.saturating_add(1))
        .map(Row::Document)
        .collect())
}

/// Reads `a desc, b, __name__`.
fn parse_order_by(text: &str) -> Result<Vec<structured_query::Order>> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (field, direction) = part.split_once(' ').unwrap_or((part, "asc"));
            let direction = match direction.trim().to_ascii_lowercase().as_str() {
                "asc" => structured_query::Direction::Ascending,
                "desc" => structured_query::Direction::Descending,
                _ => return Err(Error::invalid(format!("Invalid order_by: \"{text}\"."))),
            };
            FieldPath::parse(field)?;
            Ok(structured_query::Order {
                field: Some(structured_query::FieldReference {
                    field_path: field.to_owned(),
                }),
                direction: direction as i32,
            })
        })
        .collect()
}

fn plan(
    databases: &Databases,
    parent: &str,
    query: StructuredQuery,
) -> Result<(std::sync::Arc<Database>, Plan)> {
    let (name, parent) = parse_parent(parent)?;
    let plan = Plan::parse(&name, parent, query)?;
    Ok((databases.get(&name), plan))
}

fn page_size(asked: i32, default: usize) -> Result<usize> {
    match usize::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(size) => Ok(size),
        Err(_) => Err(Error::invalid("page_size must not be negative.")),
    }
}

fn refuse_explain(asked: bool) -> Result<()> {
    if asked {
        return Err(Error::Unimplemented(
            "Explaining queries is not available in this emulator.".to_owned(),
        ));
    }
    Ok(())
}

fn bad_token() -> Error {
    Error::invalid("Invalid page token.")
}
