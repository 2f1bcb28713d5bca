//! `many-webhooks`: at half of the maximum, does every webhook get its turn?

use super::deliver::yardstick;
use super::open_loop::events_in;
use super::plan::{Pace, Recipients};
use super::report::{OFFERED, Report, count, ratio};
use super::server::Sandbox;
use super::stage::Stage;
use super::{Paced, progress};
use std::time::Duration;

const GROUP: &str = "many";

/// Makes the webhooks, measures the maximum with executions of one, then sends to each in turn at half of it.
pub async fn measure(paced: &Paced) -> Result<Report, String> {
    let settings = &paced.settings;
    let mut report = Report::new("many-webhooks", settings.tls);
    let stage = Stage::set(settings.tls).await?;
    let before = stage.server.account()?;
    let sandbox = |n: usize| Sandbox::new(format!("s{n}"), GROUP, stage.endpoint.url(&format!("{GROUP}/{n}")));
    let wanted = settings.size(10, 10_000, 10_000);
    progress(&format!("making {wanted} webhooks"));
    let limit = Duration::from_secs_f64(settings.size(10.0, 20.0, 300.0));
    let targets = stage.server.make((0..wanted).map(sandbox).collect(), limit).await?;
    let made = targets.len() as u64;
    let at_rest = stage.server.account()?;
    progress(&format!("a first event for each of {made}"));
    stage.at_full_speed(&targets, 1, made, settings.size(5.0, 15.0, 60.0)).await?.check(GROUP)?;
    progress("the maximum");
    let run = stage.at_full_speed(&targets, 1, 3 * made, settings.size(5.0, 5.0, 30.0)).await?;
    run.check(GROUP)?;
    let maximum = run.seen.group(GROUP).per_second();
    let rate = paced.rate(maximum);
    // As many for each as for any other.
    let rounds = (events_in(rate, settings.size(1.0, 15.0, 120.0)) / made.max(1)).max(2);
    let events = settings.events.unwrap_or(rounds * made);
    progress(&format!("{events} events, {rate:.0} a second"));
    let pace = Pace::Open { events_per_second: rate, events };
    // A connection takes its last memory with its 32nd request, when hyper's queue of requests gets its second block: what
    // grows after half of a long run grows for ever.
    let halfway = async {
        tokio::time::sleep(Duration::from_secs_f64(count(events) / rate / 2.0)).await;
        stage.server.account()
    };
    let (run, halfway) = tokio::join!(stage.run(&targets, Recipients::Exactly(1), pace), halfway);
    let (run, halfway) = (run?, halfway?);
    run.check(GROUP)?;
    let found = run.seen.group(GROUP);
    run.report(GROUP, &mut report);
    report.latency_from = Some("outcome");
    report.latency_ms = found.from_outcome;
    let waits = found.queues.unwrap_or_default();
    report.add("webhooks", "webhooks", made, made.to_string());
    report.add_number(OFFERED, "offered a second", rate, 0);
    report.add_number("maximumPerSecond", "maximum a second", maximum, 0);
    report.add_number("eventsPerWebhook", "events a webhook", ratio(count(found.events), count(waits.queues)), 1);
    report.add("meanWaitOfWebhooksMs", "mean wait of webhooks", waits.mean_ms, waits.mean_ms.to_string());
    report.add_number("maxToMedianWait", "max / median wait", ratio(waits.mean_ms.max, waits.mean_ms.p50), 2);
    report.add("callToArrivalMs", "call to arrival", found.from_call, found.from_call.to_string());
    let mib = [before, at_rest, run.before, halfway, run.after].map(|account| account.rss_mib);
    let [empty, made, first, half, last] = mib;
    let told = format!(
        "{empty:.0} MiB empty, {made:.0} made, {first:.0} before the run, {half:.0} after half of it, {last:.0} at its end"
    );
    report.add("residentMiB", "resident", mib, told);
    report.add("failedCalls", "failed calls", &run.done.failed, format!("{:?}", run.done.failed));
    stage.end(&mut report).await?;
    yardstick(&run.seen.sample, settings, &mut report).await?;
    Ok(report)
}
