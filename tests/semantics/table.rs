//! `client/SEMANTICS.md` tells the truth about itself: the tests that it names exist, and nothing of libevent's is missing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every public function, macro, flag and variable of libevent's event core.
const NAMES: &str = "
    event_base_new event_init event_base_new_with_config event_base_free event_base_free_nofinalize
    event_config_new event_config_free event_config_avoid_method event_config_require_features event_config_set_flag
    event_config_set_num_cpus_hint event_config_set_max_dispatch_interval
    EVENT_BASE_FLAG_NOLOCK EVENT_BASE_FLAG_IGNORE_ENV EVENT_BASE_FLAG_STARTUP_IOCP EVENT_BASE_FLAG_NO_CACHE_TIME
    EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST EVENT_BASE_FLAG_PRECISE_TIMER EVENT_BASE_FLAG_EPOLL_DISALLOW_TIMERFD
    EVENT_BASE_FLAG_USE_SIGNALFD
    EVENT_NOEPOLL EVENT_NOPOLL EVENT_NOSELECT EVENT_NOKQUEUE EVENT_NODEVPOLL EVENT_NOEVPORT EVENT_NOWIN32 EVENT_NOWEPOLL
    EVENT_PRECISE_TIMER EVENT_EPOLL_USE_CHANGELIST EVENT_SHOW_METHOD EVENT_USE_SIGNALFD
    event_base_get_method event_get_method event_base_get_signal_method event_get_supported_methods event_base_get_features
    EV_FEATURE_ET EV_FEATURE_O1 EV_FEATURE_FDS EV_FEATURE_EARLY_CLOSE event_gettime_monotonic
    EV_TIMEOUT EV_READ EV_WRITE EV_SIGNAL EV_PERSIST EV_ET EV_FINALIZE EV_CLOSED
    event_new event_assign event_set event_self_cbarg event_free event_base_set event_initialized event_debug_unassign
    event_get_struct_event_size
    evtimer_assign evtimer_new evtimer_add evtimer_del evtimer_pending evtimer_initialized evtimer_set
    evsignal_assign evsignal_new evsignal_add evsignal_del evsignal_pending evsignal_initialized evsignal_set
    evuser_new evuser_del evuser_pending evuser_initialized evuser_trigger
    timeout_add timeout_del timeout_pending timeout_initialized timeout_set
    signal_add signal_del signal_pending signal_initialized signal_set
    event_add event_del event_del_noblock event_del_block event_remove_timer event_base_once event_once
    event_active event_pending event_base_get_running_event
    event_get_fd event_get_signal event_get_base event_get_events event_get_callback event_get_callback_arg event_get_priority
    event_get_assignment EVENT_FD EVENT_SIGNAL
    event_base_active_by_fd event_base_active_by_signal event_base_foreach_event event_base_dump_events
    event_base_get_num_events event_base_get_max_events
    EVENT_BASE_COUNT_ACTIVE EVENT_BASE_COUNT_VIRTUAL EVENT_BASE_COUNT_ADDED
    event_get_version event_get_version_number LIBEVENT_VERSION LIBEVENT_VERSION_NUMBER
    EVLIST_TIMEOUT EVLIST_INSERTED EVLIST_SIGNAL EVLIST_ACTIVE EVLIST_INTERNAL EVLIST_ACTIVE_LATER EVLIST_FINALIZING
    EVLIST_INIT EVLIST_ALL
    event_base_priority_init event_priority_init event_base_get_npriorities event_priority_set EVENT_MAX_PRIORITIES
    event_base_loop event_loop event_base_dispatch event_dispatch EVLOOP_ONCE EVLOOP_NONBLOCK EVLOOP_NO_EXIT_ON_EMPTY
    event_base_loopexit event_loopexit event_base_loopbreak event_loopbreak event_base_loopcontinue
    event_base_got_exit event_base_got_break
    event_base_gettimeofday_cached event_base_update_cache_time event_base_init_common_timeout
    event_finalize event_free_finalize event_reinit
    evthread_use_pthreads evthread_use_pthreads_with_flags evthread_use_windows_threads evthread_set_lock_callbacks
    evthread_set_condition_callbacks evthread_set_id_callback evthread_make_base_notifiable evthread_enable_lock_debugging
    evthread_enable_lock_debuging EVTHREAD_LOCK_API_VERSION EVTHREAD_CONDITION_API_VERSION EVTHREAD_LOCKTYPE_RECURSIVE
    EVTHREAD_LOCKTYPE_READWRITE EVTHREAD_WRITE EVTHREAD_READ EVTHREAD_TRY EVTHREAD_PTHREAD_PRIO_INHERIT
    EVTHREAD_USE_PTHREADS_IMPLEMENTED EVTHREAD_USE_WINDOWS_THREADS_IMPLEMENTED
    event_enable_debug_mode event_enable_debug_logging EVENT_DBG_ALL EVENT_DBG_NONE event_set_log_callback
    EVENT_LOG_DEBUG EVENT_LOG_MSG EVENT_LOG_WARN EVENT_LOG_ERR event_set_fatal_callback event_set_mem_functions
    EVENT_SET_MEM_FUNCTIONS_IMPLEMENTED libevent_global_shutdown
    evwatch_prepare_new evwatch_check_new evwatch_prepare_get_timeout evwatch_base evwatch_free
";

/// What is not run on Windows, and why.
const NOT_ON_WINDOWS: [(&str, &str); 12] = [
    ("config::a_variable_turns_the_changelist_on_and_ignore_env_turns_it_off", "the changelist is epoll's"),
    ("config::the_changelist_tells_the_kernel_once_for_each_fd", "the changelist is epoll's"),
    (
        "control::a_signal_that_interrupts_the_wait_is_no_error",
        "a console event comes in a thread of its own",
    ),
    ("events::regular_file_is_always_ready", "only sockets and handles can be watched"),
    ("events::the_changelist_notices_a_bad_fd_and_a_file_only_with_the_wait", "the changelist is epoll's"),
    ("events::a_file_that_is_always_ready_and_never_closed_does_not_spin", "files are no sources there"),
    ("fork::reinit_in_the_child_brings_everything_back_and_leaves_the_parent_alone", "there is no fork"),
    ("fork::a_child_forked_by_a_watcher_waits_for_nothing", "there is no fork"),
    ("fork::the_child_of_a_fork_cannot_make_the_parents_base_readable", "there is no fork"),
    (
        "privileged::a_program_with_more_rights_than_its_user_ignores_the_environment",
        "no program has more rights than who starts it",
    ),
    ("signals::a_signal_event_knows_its_sender", "a console event has no sender"),
    ("signals::a_signal_sent_to_evd_reaches_its_subscribers_with_its_sender", "evd passes none on"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The cells of each row, without the headlines.
fn rows() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("client/SEMANTICS.md")).unwrap();
    let rows = text
        .lines()
        .filter(|l| l.starts_with('|') && !l.starts_with("|---") && !l.starts_with("| libevent |"));
    rows.map(|row| {
        let cells: Vec<String> = row.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
        assert_eq!(cells.len(), 4, "{row}");
        cells
    })
    .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The file of a test's module: of this suite, of another one, or of the repository.
fn file(module: &str) -> PathBuf {
    let name = format!("{module}.rs");
    let places = ["tests/semantics", "tests", ""].map(|place| root().join(place).join(&name));
    places.into_iter().find(|path| path.is_file()).unwrap_or_else(|| panic!("no file {name}"))
}

#[test]
fn every_test_of_the_table_exists() {
    let mut named = BTreeSet::new();
    for test in rows().iter().flat_map(|cells| quoted(&cells[2])) {
        let (module, name) = test.rsplit_once("::").unwrap_or_else(|| panic!("{test:?} is no test"));
        let text = fs::read_to_string(file(module)).unwrap();
        assert!(text.contains(&format!("fn {name}(")), "there is no {test}");
        named.insert(test);
    }
    assert!(named.len() > 100, "{}", named.len());
}

#[test]
fn every_name_of_libevent_has_its_row_and_none_is_there_twice() {
    let mut found = BTreeSet::new();
    for name in rows().iter().flat_map(|cells| quoted(&cells[0])) {
        assert!(found.insert(name.clone()), "{name} is there twice");
    }
    let names: BTreeSet<String> = NAMES.split_whitespace().map(str::to_owned).collect();
    let missing: Vec<_> = names.difference(&found).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let unknown: Vec<_> = found.difference(&names).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn every_row_says_what_proves_it_or_why_there_is_nothing() {
    for cells in rows() {
        assert!(!cells[0].is_empty() && !cells[1].is_empty(), "{cells:?}");
        let reason = cells[3].len() > "same".len();
        assert!(!quoted(&cells[2]).is_empty() || (cells[1] != "same" && reason), "{cells:?}");
    }
}

#[test]
fn every_test_of_the_suite_is_in_the_table() {
    let named: BTreeSet<String> = rows().iter().flat_map(|cells| quoted(&cells[2])).collect();
    for entry in fs::read_dir(root().join("tests/semantics")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if module == "table" || module == "role" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for part in text.split("#[test]\n").skip(1) {
            let name = part.split_once("fn ").unwrap().1.split('(').next().unwrap();
            assert!(named.contains(&format!("{module}::{name}")), "{module}::{name} proves nothing");
        }
    }
}

#[test]
fn what_is_not_run_on_windows_is_listed_with_its_reason() {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root().join("tests/semantics")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        for part in text.split("#[cfg(unix)]\n#[test]\n").skip(1) {
            let name = part.split_once("fn ").unwrap().1.split('(').next().unwrap();
            found.insert(format!("{module}::{name}"));
        }
    }
    // This file has the words, too.
    found.retain(|name| !name.starts_with("table::"));
    let listed: BTreeSet<String> = NOT_ON_WINDOWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed, found);
    assert!(NOT_ON_WINDOWS.iter().all(|(_, why)| !why.is_empty()));
}
