//! The worker: a process for one task. It makes ready what no task decides, waits for its task, runs it, and tells its
//! supervisor everything that happens as it happens.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::channel::{SupervisorMessage, TaskOrder, ToSupervisor, WorkerMessage};
use crate::config::{Config, Mode};
use crate::events::{EventSink, TaskErrorCode, TaskId};
use crate::failure::Failure;
use crate::run::{Exit, Process, Ready, Refused, Signals, Stop, StopReason, Work};
use crate::task::{Document, Format};
use crate::telemetry::set_identity;

/// How long a worker whose supervisor is gone may take to put its things away.
const WITHOUT_SUPERVISOR: Duration = Duration::from_secs(3);

/// When memory runs out, a worker and its commands go before their supervisor, which says what became of them.
const OOM_SCORE: &str = "500";

/// Runs one task for the supervisor at the other end of standard input.
pub async fn work(config: &Config, process: &Process) -> Exit {
    let Mode::Standby(standby) = &config.mode else {
        tracing::error!("a worker is started by a standby runner (MODE=standby), and by nobody else");
        return Exit::Invalid;
    };
    let (supervisor, orders) = match connect() {
        Ok(connected) => connected,
        Err(error) => {
            tracing::error!(error = %error, "a worker is started by a standby runner, and by nobody else");
            return Exit::Invalid;
        }
    };
    // What an unprivileged process may always do; where it may not, nothing depends on it.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let ready = match Ready::make(config, &process.telemetry).await {
        Ok(ready) => ready,
        Err(Refused(failure)) => {
            supervisor.send(&WorkerMessage::Unusable(failure.message));
            return Exit::Invalid;
        }
    };
    supervisor.send(&WorkerMessage::Ready);
    tokio::spawn(be_alive(Arc::clone(&supervisor), standby.heartbeat / 2));
    serve(config, ready, &supervisor, orders, process).await
}

/// Waits for the one task, and runs it.
async fn serve(
    config: &Config,
    ready: Ready,
    supervisor: &Arc<ToSupervisor>,
    mut orders: UnboundedReceiver<SupervisorMessage>,
    process: &Process,
) -> Exit {
    let (signals, telemetry) = (&process.signals, &process.telemetry);
    let order = tokio::select! {
        order = orders.recv() => order,
        reason = signals.first() => return reason.exit(),
    };
    let Some(SupervisorMessage::Task(TaskOrder {
        id,
        kind,
        document,
        secrets,
    })) = order
    else {
        return Exit::Success;
    };
    set_identity(Some(id.into()), config.api.request_id.clone());
    process.redactor.learn(secrets);
    // What was made ready may be hours old.
    let now = process.config_now();
    let (config, ready) = match &now {
        Some(now) => (now, ready.still_right(config, now).await),
        None => (config, ready),
    };
    if let Some(otlp) = &config.telemetry {
        telemetry.renew(otlp, config.api.request_id.as_deref());
    }
    let stop = signals.stop();
    let watching = watch(orders, signals, &stop);
    let telling = Arc::clone(supervisor);
    let document = async move {
        // The task's span has begun.
        if let Some(traceparent) = telemetry.traceparent() {
            telling.send(&WorkerMessage::Trace(traceparent));
        }
        let mut document = Document::parse(&document, Format::Json).map_err(|error| {
            Refused(Failure {
                code: TaskErrorCode::InvalidTask,
                message: error.to_string(),
            })
        })?;
        if let Some(kind) = kind {
            document.assume_type(&kind);
        }
        Ok(document)
    };
    let events = EventSink::supervisor(Arc::clone(supervisor) as _, process.redactor);
    let performing = async {
        let task_id = TaskId::Number(id);
        let work = Work::new(config, &task_id, &events, telemetry, &stop);
        let (ending, exit) = work.perform(document, ready).await;
        events.push(ending);
        exit
    };
    tokio::select! {
        exit = performing => exit,
        () = watching => Exit::Failed,
    }
}

/// Obeys orders to stop. Ends when there is no supervisor any more, and the task has had its time to end.
async fn watch(mut orders: UnboundedReceiver<SupervisorMessage>, signals: &Signals, stop: &Stop) {
    while let Some(order) = orders.recv().await {
        match order {
            SupervisorMessage::Stop(StopReason::Server) => stop.because(StopReason::Server),
            SupervisorMessage::Stop(reason) => signals.receive(reason),
            SupervisorMessage::Task(_) => tracing::error!("a second task for one worker"),
        }
    }
    tracing::error!("the supervisor of this worker is gone: the task ends");
    stop.because(StopReason::Terminate);
    tokio::time::sleep(WITHOUT_SUPERVISOR).await;
}

/// Shows that the event loop turns.
async fn be_alive(supervisor: Arc<ToSupervisor>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        supervisor.send(&WorkerMessage::Alive);
    }
}

/// Takes the socket out of the place of standard input, where it would be inherited.
fn connect() -> io::Result<(Arc<ToSupervisor>, UnboundedReceiver<SupervisorMessage>)> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Anything else that stands there is no supervisor.
    socket.peer_addr()?;
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    let mut orders = socket.try_clone()?;
    let (sender, receiver) = unbounded_channel();
    // A thread of its own: orders must be heard whatever the event loop does.
    std::thread::Builder::new().name("orders".into()).spawn(move || {
        while let Ok(Some(order)) = SupervisorMessage::read(&mut orders) {
            if sender.send(order).is_err() {
                return;
            }
        }
    })?;
    Ok((Arc::new(ToSupervisor::new(socket)), receiver))
}
