//! What a path names: a resource of the API.

use crate::broker::Stream;

/// The most segments that a path has behind its project.
const MOST_SEGMENTS: usize = 6;

/// A path of the API taken apart. V2 and V1.0 differ in the prefix alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// The project; the identity service has none.
    pub(crate) project: Option<&'a str>,
    /// What of it.
    pub(crate) resource: Resource<'a>,
}

/// A resource of the API. Names stand as the path has them: neither decoded nor checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource<'a> {
    /// The queues of the project.
    Queues,
    /// A queue.
    Queue(&'a str),
    /// The groups of a queue.
    Groups(&'a str),
    /// A group of a queue.
    Group(&'a str, &'a str),
    /// Where a queue takes messages.
    Messages(&'a str),
    /// Where a group of a queue consumes.
    Consume(&'a str, &'a str, Stream),
    /// Where a group of a queue acknowledges.
    Acks(&'a str, &'a str, Stream),
    /// The tags of a queue.
    Tags(&'a str),
    /// Where tags of a queue are set and deleted together.
    TagActions(&'a str),
    /// A tag of a queue by its key.
    Tag(&'a str, &'a str),
    /// The tags of all queues.
    ProjectTags,
    /// Where queues are found by their tags.
    TagSearch,
    /// The quotas of the project.
    Quotas,
    /// The quota of queues alone.
    QueueQuota,
    /// Where waiting consume calls are ended: an extension.
    EndPolls,
    /// The version of the identity service.
    Version,
    /// Where tokens are made.
    TokenStore,
    /// The caller's projects.
    Projects,
}

impl<'a> Target<'a> {
    /// What a path names, if it is one of the API.
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        let identity = match path {
            "/v3" | "/v3/" => Some(Resource::Version),
            "/v3/auth/tokens" => Some(Resource::TokenStore),
            "/v3/projects" => Some(Resource::Projects),
            _ => None,
        };
        if let Some(resource) = identity {
            return Some(Self { project: None, resource });
        }
        let (project, rest) = path.strip_prefix("/v2/").or_else(|| path.strip_prefix("/v1.0/"))?.split_once('/')?;
        Resource::of(rest).map(|resource| Self { project: Some(project), resource })
    }
}

impl<'a> Resource<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let mut segments = [""; MOST_SEGMENTS];
        let mut count = 0;
        for segment in path.split('/') {
            *segments.get_mut(count)? = segment;
            count += 1;
        }
        Some(match segments.get(..count)? {
            // A path that ends in a slash leaves its last name out.
            [.., ""] => return None,
            ["queues"] => Self::Queues,
            ["queues", queue] => Self::Queue(queue),
            ["queues", queue, "messages"] => Self::Messages(queue),
            ["queues", queue, "groups"] => Self::Groups(queue),
            ["queues", queue, "groups", group] => Self::Group(queue, group),
            ["queues", queue, "groups", group, "messages"] => Self::Consume(queue, group, Stream::Messages),
            ["queues", queue, "groups", group, "ack"] => Self::Acks(queue, group, Stream::Messages),
            ["queues", queue, "groups", group, "deadletters"] => Self::Consume(queue, group, Stream::DeadLetters),
            ["queues", queue, "groups", group, "deadletters", "ack"] => Self::Acks(queue, group, Stream::DeadLetters),
            // `queue`, in the singular, is what the reference has for tags.
            ["queue", "tags"] => Self::ProjectTags,
            ["queue", "resource_instances", "action"] => Self::TagSearch,
            ["queue", queue, "tags"] => Self::Tags(queue),
            ["queue", queue, "tags", "action"] => Self::TagActions(queue),
            ["queue", queue, "tags", key] => Self::Tag(queue, key),
            ["quotas"] => Self::Quotas,
            ["quotas", "dms"] => Self::QueueQuota,
            ["polls", "end"] => Self::EndPolls,
            _ => return None,
        })
    }

    /// The methods that it has, as the `Allow` header lists them.
    pub(crate) fn methods(self) -> &'static str {
        match self {
            Self::Queues | Self::Groups(_) => "POST,GET",
            Self::Tags(_) => "GET,POST",
            Self::Queue(_) => "GET,DELETE",
            Self::TagActions(_) => "POST,DELETE",
            Self::Group(..) | Self::Tag(..) => "DELETE",
            Self::Messages(_) | Self::Acks(..) | Self::TagSearch | Self::EndPolls | Self::TokenStore => "POST",
            Self::Consume(..) | Self::ProjectTags | Self::Quotas | Self::QueueQuota | Self::Projects => "GET",
            Self::Version => "GET,HEAD",
        }
    }

    /// Whether it is the identity service's.
    pub(crate) fn is_identity(self) -> bool {
        matches!(self, Self::Version | Self::TokenStore | Self::Projects)
    }

    /// Whether the documented API lacks it.
    pub(crate) fn is_extension(self) -> bool {
        matches!(self, Self::EndPolls)
    }

    /// Whether it is there for callers who have not shown who they are.
    pub(crate) fn is_for_anybody(self) -> bool {
        matches!(self, Self::Version | Self::TokenStore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_both_versions_names_the_same() {
        let resource =
            |path: &str| Target::of(path).map(|target| format!("{:?} {:?}", target.project, target.resource));
        for (rest, expected) in [
            ("queues/q/groups/g/deadletters/ack", r#"Some("p") Acks("q", "g", DeadLetters)"#),
            ("queue/tags", r#"Some("p") ProjectTags"#),
            ("polls/end", r#"Some("p") EndPolls"#),
            ("queue/tags/tags", r#"Some("p") Tags("tags")"#),
            ("queue/q/tags/action", r#"Some("p") TagActions("q")"#),
            ("queue/q/tags/a%2Fb", r#"Some("p") Tag("q", "a%2Fb")"#),
        ] {
            assert_eq!(resource(&format!("/v2/p/{rest}")).as_deref(), Some(expected));
            assert_eq!(resource(&format!("/v1.0/p/{rest}")).as_deref(), Some(expected));
        }
        for foreign in
            ["/", "/v2", "/v2/p", "/v2/p/", "/v2/p/queues/", "/v2/p/queues/q/groups/g/ack/x/y", "/v4/p/queues"]
        {
            assert_eq!(resource(foreign), None, "{foreign}");
        }
    }
}
