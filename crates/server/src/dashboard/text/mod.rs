//! The texts of the dashboard. A text that is missing in a language does not compile.

mod chinese;
mod english;

use http::{header, request::Parts};

use crate::dashboard::{
    cookie::{LANGUAGE_COOKIE, cookie},
    form::Form,
};

/// A language of the dashboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// 简体中文.
    Chinese,
}

impl Language {
    /// The language of a request: the parameter `lang`, the visitor's choice, or the first known language of the browser.
    pub(crate) fn of(head: &Parts) -> Self {
        let query = Form::parse(head.uri.query().unwrap_or_default().as_bytes());
        let named = query.first("lang").and_then(Self::parse);
        let chosen = || cookie(&head.headers, LANGUAGE_COOKIE).and_then(Self::parse);
        let accepted = || {
            let accepted = head.headers.get(header::ACCEPT_LANGUAGE)?.to_str().ok()?;
            accepted.split(',').find_map(|entry| Self::parse(entry.split(';').next().unwrap_or_default().trim()))
        };
        named.or_else(chosen).or_else(accepted).unwrap_or_default()
    }

    /// The language of a tag such as `zh-CN`.
    pub(crate) fn parse(tag: &str) -> Option<Self> {
        let primary = tag.split(['-', '_']).next().unwrap_or_default();
        match () {
            () if primary.eq_ignore_ascii_case("en") => Some(Self::English),
            () if primary.eq_ignore_ascii_case("zh") => Some(Self::Chinese),
            () => None,
        }
    }

    /// Its tag.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh-CN",
        }
    }

    /// The other language.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::English => Self::Chinese,
            Self::Chinese => Self::English,
        }
    }

    /// Its name in itself.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::Chinese => "中文",
        }
    }

    /// Its texts.
    pub fn texts(self) -> &'static Texts {
        match self {
            Self::English => &english::TEXTS,
            Self::Chinese => &chinese::TEXTS,
        }
    }
}

/// Puts `values` in the place of each `{}` of a text in their order, and of each `{0}`, `{1}` and so on by their numbers.
pub fn fill(text: &str, values: &[&str]) -> String {
    let mut parts = text.split('{');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for (place, part) in parts.enumerate() {
        let (number, rest) = part.split_once('}').unwrap_or(("", part));
        let value = values.get(number.parse().unwrap_or(place)).copied();
        filled.push_str(value.unwrap_or_default());
        filled.push_str(rest);
    }
    filled
}

macro_rules! texts {
    ($($name:ident)*) => {
        /// Every text of the dashboard in one language.
        #[derive(Debug)]
        pub struct Texts {
            $(
                #[doc = concat!("The text `", stringify!($name), "`.")]
                pub $name: &'static str,
            )*
        }

        #[cfg(test)]
        impl Texts {
            /// All texts with their names.
            fn all(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

texts! {
    server worker skip pages live paused lost outdated read_only log_out dark light_theme system_theme find_message
    login_title login_help login_token login_submit login_wrong denied_title denied_open denied_reader overview
    not_found not_done bad_form keys key_search key_pause key_help close copy copied back reload none name create show
    now milliseconds seconds minutes hours days all_is_well further_findings not_serving not_serving_remedy
    storage_failing faults faults_remedy damaged damaged_remedy no_consumer no_consumer_since no_consumer_remedy growing
    growing_remedy has_dead_letters dead_letters_remedy rates entering settling backlog dead_letters dead_letters_help
    no_dead_letters_anywhere redeliveries queue queues group groups no_groups no_queues create_queue new_group
    first_group dead_after_field project ready leased delayed dead oldest consumers last_minute outlook too_early drains
    never_drains charts messages how_to_consume range ten_minutes three_hours one_day history_since charts_need_script
    oldest_seconds settings mode no_dead_letters dead_after retention delete_when_settled largest_message created
    entered_total settled_total died_total expired_unread ids dangers type_name purge_group purge_group_help
    delete_group delete_group_help purge_queue purge_queue_help delete_queue delete_queue_help notice_created
    notice_done notice_retried notice_discarded notice_not_available command_line configuration consume_note
    looking_leases_nothing state all text pointer attribute attributes label labels filter clear no_messages place
    failures entered size body reason error hidden_body leased_for due_in looked_at go_on from_the_start message
    message_gone search_incomplete in_queue in_delayed in_dead_letters is_due became_dead failed_first failed_last
    after_attempts worker_name reason_failed reason_panicked reason_timed_out reason_rejected reason_undecodable
    reason_republish_exhausted reason_lease_expired reason_batch_failed reason_other settled skipped is_damaged
    failures_so_far redrive_this discard_this cut_short as_it_was_sent by_reason count first last example all_reasons
    no_dead_letters_here first_rows redrive discard redrive_count discard_count export export_first job_running
    would_redrive would_discard held_by_consumers redrive_explained discard_explained wrong_number rate_limit
    type_number jobs job jobs_help no_jobs progress began who waits_for_undo running done cancelled failed
    left_with_consumers job_resumed undo cancel cancel_redrive_help undo_help back_to_dead_letters send send_message
    may_not_send body_hint attributes_hint delay_seconds copies sent storage in_memory kept_in syncs set_aside
    nothing_damaged file activity activity_help no_activity when action target outcome
    workers no_workers workers_are_well in_flight handled lease_used lease_used_help last_poll stopping not_ready pause
    resume pause_all resume_all drain drain_type drain_help concurrency set outcomes last_errors no_errors meaning
    setting value configuration_page configuration_help outcome_done outcome_failed outcome_timed_out outcome_panicked
    outcome_rejected outcome_deferred outcome_released outcome_late outcome_redelivered outcome_dead_lettered
    outcome_failed_polls
    edit_this edit_title edit_help edit_send original reason_edited notice_edited edited_stay body_is_no_json
    in_flight_now leases_help no_leases leases_count leases_first time_left lease_over
    in_flight_help nothing_in_flight stuck attempt handled_for handler_millis was_edited
    search search_help search_empty searched message_id show_message incomplete incomplete_remedy access access_help callers
    admin_address temporary_key access_key user kind may_send may_consume may_manage server_is_open every_queue
    reads_with_bodies reads_without_bodies nobody everything is_set is_not_set without_a_token rights access_changes
    cluster no_cluster cluster_help servers shards standbys missed_beats takeovers unsure_commits this_server address
    not_reachable shard owner epoch next_owner pinned no_standbys lag tags no_tags tag_key delete login_link_over
    why_again no_redeliveries again_failed again_rejected again_panicked again_timed_out again_deferred again_behind_failure
    again_handed_back again_not_started again_late_ack again_lost_ack again_rejected_ack again_lease_lapsed again_unknown
    job_moved job_at_server jobs_elsewhere_help
    store_works disk_used disk_free disk_full_in disk_never_full
    state_serving state_draining state_silent state_owned state_free state_dead
    in_force_since restart_needed reload_refused
    schedule schedules schedules_help schedules_of_all no_schedules no_schedules_of_queue times cron time_zone next_tick next_ticks
    last_tick last_result tick_sent tick_sent_late no_tick_yet ticks_missed sent_in_total schedule_active never_due never_due_remedy
    of_the_configuration added_by_command add_schedule missed_ticks missed_once missed_skip missed_all scheduled_message_hint
    pause_schedule_help remove_schedule remove_schedule_help remove_configured
    commands too_long_to_copy handed_out handed_out_help last_cause leased_until leased_since leased_at
    attempt_failed attempt_expired attempt_batch_failed attempt_released trace
    entered_since entered_until bad_time
    last_use not_used last_use_help slowed_down slowed_down_help nobody_slowed peer slowed_by locked_for lift
    nothing_to_lift refused_calls refused_in_all refused_signature refused_without refused_expired refused_token
    refused_password
    job_interrupted discard_not_begun discard_interrupted discard_was_interrupted
    schedule_waits schedule_waits_remedy schedule_never_due schedule_overdue schedule_overdue_remedy schedule_late
    schedule_late_remedy schedule_missed schedule_missed_remedy
    one_hour since_start last_cases failures_by_error failures_by_error_help isolated isolation_note set_in
    default_value publishers publishers_help no_publishers nothing_published pending published_sent
    published_duplicates published_failed published_unsure published_requests
    trouble_refused trouble_stopping trouble_app_down trouble_no_answer_yet trouble_no_answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_take_the_same_values_in_every_language() {
        let pairs = english::TEXTS.all().into_iter().zip(chinese::TEXTS.all());
        for ((name, english), (_, chinese)) in pairs {
            assert_eq!(english.matches('{').count(), chinese.matches('{').count(), "{name}");
            assert!(!english.trim().is_empty() && !chinese.trim().is_empty(), "{name}");
        }
    }

    #[test]
    fn languages_are_found_in_tags() {
        assert_eq!(Language::parse("zh-Hans-CN"), Some(Language::Chinese));
        assert_eq!(Language::parse("en_US"), Some(Language::English));
        assert_eq!((Language::parse("de"), Language::parse("english")), (None, None));
        assert_eq!(fill("{} of {}", &["1", "2"]), "1 of 2");
        assert_eq!(fill("{1}: {0}", &["1", "2"]), "2: 1");
    }
}
