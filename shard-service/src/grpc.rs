//! The chat service: its few calls, each checked and answered at this edge.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use infrachat_identity::Claims;
use infrachat_metadata::{ChannelRecord, Direction, Metadata, MetadataError};
use infrachat_proto::{
    Refusal,
    bus::v1 as bus,
    chat::v1::{
        self as chat, get_history_request::Bound, server::chat_service_server::ChatService,
    },
};
use infrachat_types::{Channel, ChannelName, ErrorCode, MessageId, UserName, Visibility};
use tonic::{Request, Response, Status};

use crate::{access, parts::Parts, presence};

const PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1_000;
/// Most members of a private channel.
const MEMBERS: usize = 1_000;
const TOPIC_LENGTH: usize = 500;

/// The service.
#[derive(Debug)]
pub(crate) struct Chat {
    pub(crate) parts: Arc<Parts>,
}

impl Chat {
    async fn caller<T>(&self, request: &Request<T>) -> Result<Claims, Refusal> {
        let header = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| {
                let text = "send the access token as `authorization: Bearer <token>`";
                Refusal::new(ErrorCode::Unauthenticated, text)
            })?;
        self.parts.callers.check(token).await
    }

    /// The channel, if the caller may be in it.
    async fn channel(&self, name: &str, user: &UserName) -> Result<Arc<ChannelRecord>, Refusal> {
        let name = access::channel_name(name)?;
        self.parts
            .access
            .check(&name, user, (&self.parts.region, &self.parts.stores))
            .await
    }

    async fn create(
        &self,
        creator: UserName,
        asked: chat::CreateChannelRequest,
    ) -> Result<Channel, Refusal> {
        let name = access::channel_name(&asked.name)?;
        if asked.topic.len() > TOPIC_LENGTH || asked.members.len() >= MEMBERS {
            let text =
                format!("at most {TOPIC_LENGTH} bytes of topic and {MEMBERS} members are allowed");
            return Err(Refusal::new(ErrorCode::BadRequest, text));
        }
        let named = asked.members.iter().map(|name| UserName::new(name));
        let mut members = named
            .collect::<Result<std::collections::BTreeSet<_>, _>>()
            .map_err(|err| Refusal::new(ErrorCode::BadUserName, err.to_string()))?;
        members.insert(creator.clone());
        let parts = &self.parts;
        let home = access::home_of(&name, &parts.stores)
            .and_then(|region| Some((region, parts.stores.get(region)?)))
            .ok_or_else(|| Refusal::new(ErrorCode::Internal, "the deployment has no regions"))?;
        let wire = chat::Channel {
            name: name.to_string(),
            home_region: home.0.to_string(),
            created_by: creator.to_string(),
            created_at_ms: parts.clock.now(),
            visibility: asked.visibility,
            topic: asked.topic,
            slow_reader: asked.slow_reader,
            version: 1,
        };
        let channel = infrachat_proto::channel_from_wire(wire)
            .map_err(|err| Refusal::new(ErrorCode::BadRequest, err.to_string()))?;
        if channel.visibility == Visibility::Public {
            members.clear();
            members.insert(creator);
        }
        let record = ChannelRecord { channel, members };
        home.1
            .create_channel(record.clone())
            .await
            .map_err(|err| refuse_creation(&name, &err))?;
        self.spread(&record, home.1).await;
        Ok(record.channel)
    }

    /// Has the other regions copy a new channel. Whoever needs it before reads it from its home.
    async fn spread(&self, record: &ChannelRecord, home: &Arc<dyn Metadata>) {
        let parts = &self.parts;
        if !Arc::ptr_eq(home, &parts.store)
            && let Err(err) = parts.store.copy_channel(record.clone()).await
        {
            tracing::warn!(channel = %record.channel.name, %err, "a new channel was not copied to this region");
        }
        let changed = bus::ChannelChanged {
            channel: record.channel.name.to_string(),
            version: record.channel.version,
            home_region: record.channel.home_region.to_string(),
        };
        let changed = bus::control_event::Kind::ChannelChanged(changed);
        let announced = infrachat_control::announce(&*parts.bus, &parts.region, changed).await;
        if let Err(err) = announced {
            tracing::warn!(channel = %record.channel.name, %err, "a new channel was not announced");
        }
    }

    async fn history(
        &self,
        caller: &UserName,
        asked: chat::GetHistoryRequest,
    ) -> Result<chat::GetHistoryResponse, Refusal> {
        let record = self.channel(&asked.channel, caller).await?;
        let id = |text: &str| {
            text.parse::<MessageId>()
                .map_err(|err| Refusal::new(ErrorCode::BadRequest, err.to_string()))
        };
        let direction = match &asked.bound {
            None => Direction::Before(MessageId::MAX),
            Some(Bound::Before(text)) => Direction::Before(id(text)?),
            Some(Bound::After(text)) => Direction::After(id(text)?),
            Some(Bound::BeforeMs(at)) => Direction::Before(first_id_of(*at)?),
            Some(Bound::SinceMs(at)) => Direction::After(first_id_of(*at)?),
        };
        let limit = page_size(asked.limit)?;
        let page = self
            .parts
            .store
            .history(&record.channel.name, direction, limit)
            .await;
        let page = page.map_err(|err| unavailable(&err))?;
        let message = |entry: &infrachat_metadata::HistoryEntry| {
            infrachat_proto::message_to_wire(&entry.message, Bytes::new())
        };
        Ok(chat::GetHistoryResponse {
            messages: page.entries.iter().map(message).collect(),
            more: page.more,
        })
    }

    async fn members(
        &self,
        caller: &UserName,
        asked: chat::ListMembersRequest,
    ) -> Result<chat::ListMembersResponse, Refusal> {
        let record = self.channel(&asked.channel, caller).await?;
        let limit = page_size(asked.page_size)?;
        let after = (!asked.page_token.is_empty())
            .then(|| UserName::new(&asked.page_token))
            .transpose();
        let after = after
            .map_err(|err| Refusal::new(ErrorCode::BadRequest, format!("page_token: {err}")))?;
        let name = &record.channel.name;
        let private = record.channel.visibility == Visibility::Private;
        // Of a private channel everyone present is a member, so that its presence is bounded.
        let (from, most) = if private {
            (None, MEMBERS)
        } else {
            (after.as_ref(), limit + 1)
        };
        let present = self.parts.presence.list(name, from, most).await;
        let presence_stale = present.is_err();
        let mut members: Vec<chat::Member> = present
            .unwrap_or_default()
            .into_iter()
            .map(presence::member)
            .collect();
        if private {
            let online = members;
            let listed = record
                .members
                .iter()
                .filter(|user| after.as_ref().is_none_or(|after| *user > after));
            members = listed
                .map(|user| {
                    let found = online.iter().find(|member| member.user == user.as_str());
                    found.cloned().unwrap_or_else(|| chat::Member {
                        user: user.to_string(),
                        role: "member".to_owned(),
                        online: false,
                        regions: Vec::new(),
                    })
                })
                .collect();
        }
        for member in members
            .iter_mut()
            .filter(|member| member.user == record.channel.created_by.as_str())
        {
            "owner".clone_into(&mut member.role);
        }
        let more = members.len() > limit;
        members.truncate(limit);
        let next = members
            .last()
            .filter(|_| more)
            .map(|member| member.user.clone());
        Ok(chat::ListMembersResponse {
            members,
            next_page_token: next.unwrap_or_default(),
            presence_stale,
        })
    }
}

/// The id below all those of a moment.
fn first_id_of(millis: i64) -> Result<MessageId, Refusal> {
    let latest = MessageId::MAX.millis();
    let known = u64::try_from(millis).ok().filter(|at| *at <= latest);
    known.map(MessageId::floor_of).ok_or_else(|| {
        let text = format!("{millis} is no moment: milliseconds since 1970, up to {latest}");
        Refusal::new(ErrorCode::BadRequest, text)
    })
}

fn page_size(asked: u32) -> Result<usize, Refusal> {
    if asked > LARGEST_PAGE {
        let text = format!("at most {LARGEST_PAGE} at once: ask for the next page");
        return Err(Refusal::new(ErrorCode::BadRequest, text));
    }
    Ok(if asked == 0 { PAGE } else { asked } as usize)
}

fn unavailable(err: &MetadataError) -> Refusal {
    Refusal::new(ErrorCode::Unavailable, format!("{err}: try again"))
        .retry_after(Duration::from_secs(1))
}

fn refuse_creation(name: &ChannelName, err: &MetadataError) -> Refusal {
    match err {
        MetadataError::Exists(_) => Refusal::new(
            ErrorCode::ChannelExists,
            format!("{name} exists already: join it"),
        ),
        err => unavailable(err),
    }
}

#[tonic::async_trait]
impl ChatService for Chat {
    async fn create_channel(
        &self,
        request: Request<chat::CreateChannelRequest>,
    ) -> Result<Response<chat::CreateChannelResponse>, Status> {
        let claims = self.caller(&request).await?;
        let channel = self.create(claims.user, request.into_inner()).await?;
        let channel = Some(infrachat_proto::channel_to_wire(&channel));
        Ok(Response::new(chat::CreateChannelResponse { channel }))
    }

    async fn get_history(
        &self,
        request: Request<chat::GetHistoryRequest>,
    ) -> Result<Response<chat::GetHistoryResponse>, Status> {
        let claims = self.caller(&request).await?;
        Ok(Response::new(
            self.history(&claims.user, request.into_inner()).await?,
        ))
    }

    async fn list_members(
        &self,
        request: Request<chat::ListMembersRequest>,
    ) -> Result<Response<chat::ListMembersResponse>, Status> {
        let claims = self.caller(&request).await?;
        Ok(Response::new(
            self.members(&claims.user, request.into_inner()).await?,
        ))
    }
}
