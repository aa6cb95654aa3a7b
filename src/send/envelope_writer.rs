//! Writes envelopes in a form of which sentry's transports lose nothing.

use std::time::{Duration, Instant};

use sentry_core::Envelope;
use sentry_core::client_report::{Reason, Recorder};
use sentry_core::protocol::client_report::{Item, ItemLoss, LossSource, Reason as LossReason};
use sentry_core::protocol::{ClientReport, EnvelopeHeaders, EnvelopeItem};

use crate::send::client_report;
use crate::send::handover::WrittenTransaction;

/// How long reported losses wait for an envelope to travel with.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// A buffer that has grown beyond this is not kept for the next envelope.
const MAX_KEPT_BUFFER: usize = 64 * 1024;

/// Serializes envelopes that have headers to lose, and takes client reports out of them
/// first: a transport that loses an envelope counts its items, and the losses that reports
/// in it tell of, but it cannot count what it sees as bytes alone.
pub(crate) struct EnvelopeWriter {
    recorder: Recorder,
    losses: Vec<ItemLoss>,
    report_due: Option<Instant>,
    /// Reused: an envelope is written in small pieces, and a new buffer would grow many times.
    buffer: Vec<u8>,
}

impl EnvelopeWriter {
    pub(crate) fn new(recorder: Recorder) -> Self {
        Self {
            recorder,
            losses: Vec::new(),
            report_due: None,
            buffer: Vec::new(),
        }
    }

    /// When pending losses are to be sent at the latest.
    pub(crate) fn report_due(&self) -> Option<Instant> {
        self.report_due
    }

    /// An envelope with nothing but the report.
    pub(crate) fn take_report(&mut self) -> Option<Envelope> {
        let mut envelope = Envelope::new();
        envelope.add_item(self.take_losses()?);
        Some(envelope)
    }

    /// `None` for an envelope that cannot be serialized: sentry's transports would panic on it.
    pub(crate) fn write(&mut self, mut envelope: Envelope) -> Option<Envelope> {
        if !has_headers_to_lose(&envelope) {
            if let Some(report) = self.take_losses() {
                envelope.add_item(report);
            }
            return Some(envelope);
        }
        let envelope = self.without_reports(envelope);
        let raw = self.written(&envelope);
        if raw.is_none() {
            let broken = Reason::InternalError;
            self.recorder.record_lost_data(&envelope, broken);
        }
        raw
    }

    /// A transaction that was written already.
    pub(crate) fn raw(&self, mut transaction: WrittenTransaction) -> Option<Envelope> {
        let raw = Envelope::from_bytes_raw(std::mem::take(&mut transaction.bytes));
        if raw.is_err() {
            let report = transaction.loss_report(LossReason::InternalSdkError);
            let reason = Reason::InternalError;
            self.recorder.record_lost_data(&report, reason);
        }
        raw.ok()
    }

    fn written(&mut self, envelope: &Envelope) -> Option<Envelope> {
        self.buffer.clear();
        envelope.to_writer(&mut self.buffer).ok()?;
        let bytes = match self.buffer.len() {
            0..=MAX_KEPT_BUFFER => self.buffer.as_slice().to_vec(),
            _ => std::mem::take(&mut self.buffer),
        };
        Envelope::from_bytes_raw(bytes).ok()
    }

    fn without_reports(&mut self, envelope: Envelope) -> Envelope {
        let is_report = |item: &EnvelopeItem| matches!(item, EnvelopeItem::ClientReport(_));
        if !envelope.items().any(is_report) {
            return envelope;
        }
        let mut rest = Envelope::new().with_headers(envelope.headers().clone());
        for item in envelope.into_items() {
            match item {
                EnvelopeItem::ClientReport(report) => self.keep(report.losses()),
                item => rest.add_item(item),
            }
        }
        rest
    }

    pub(crate) fn keep(&mut self, losses: impl IntoIterator<Item = ItemLoss>) {
        for loss in losses {
            client_report::add_to(&mut self.losses, loss);
        }
        if self.report_due.is_none() && !self.losses.is_empty() {
            self.report_due = Instant::now().checked_add(REPORT_INTERVAL);
        }
    }

    fn take_losses(&mut self) -> Option<ClientReport> {
        self.report_due = None;
        let losses = std::mem::take(&mut self.losses);
        let item = |loss: ItemLoss| Some(Item::new(loss.category, loss.reason?, loss.quantity));
        let items: Vec<_> = losses.into_iter().filter_map(item).collect();
        (!items.is_empty()).then(|| ClientReport::new(items))
    }
}

fn has_headers_to_lose(envelope: &Envelope) -> bool {
    let kept = match envelope.uuid() {
        Some(id) => EnvelopeHeaders::new().with_event_id(*id),
        None => EnvelopeHeaders::new(),
    };
    *envelope.headers() != kept
}
