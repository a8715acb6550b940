package caddymodule

import (
	"errors"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-sse/caddy-sse/sse"
)

// The metrics are read from the hubs when they are scraped. Caddy gives every
// configuration a registry of its own, so counters kept there would begin
// anew with each reload; the hubs' live on.
var (
	healthy         = describe("healthy", "Whether the hub can publish and deliver: 1, or 0.")
	streamsOpen     = describe("streams_open", "Streams that are open now.")
	channelsKnown   = describe("channels", "Channels that have subscribers or had events.")
	keptBytes       = describe("kept_bytes", "Memory of the events that are kept for replay.")
	eventsPublished = describe("events_published_total", "Events published.")
	eventsDelivered = describe("events_delivered_total", "Events written to streams, counted once for each stream.")
	streamsClosed   = describe("streams_closed_total", "Streams that ended, by reason.", "reason")
	requestsRefused = describe("requests_refused_total", "Requests for streams, changes and publishes that were refused, by reason.", "reason")
	sessionsAway    = describe("sessions_away", "Sessions that are kept for clients that are gone for the moment.")
	sessionsLost    = describe("sessions_forgotten_total", "Such sessions that were given up before their time, because there were too many.")
	resets          = describe("resets_total", "Channels and patterns of which subscribers were told that events are missing, by reason.", "reason")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("caddy_sse_"+name, help, append([]string{"hub"}, labels...), nil)
}

// registerMetrics has the configuration's registry read the hubs. The app does
// so, and the admin API: a configuration that fails leaves Caddy with its
// admin endpoint, and so its registry, but without its apps.
func registerMetrics(ctx caddy.Context) error {
	err := ctx.GetMetricsRegistry().Register(collector{})
	if _, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		return nil
	}
	return err
}

// A collector reads the hubs that are live.
type collector struct{}

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{healthy, streamsOpen, channelsKnown, keptBytes, eventsPublished, eventsDelivered, streamsClosed, resets, requestsRefused, sessionsAway, sessionsLost} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (collector) Collect(ch chan<- prometheus.Metric) {
	seen := make(map[string]bool)
	for _, live := range liveHubs() {
		// Two of one name are there for the moment of a reload that gives
		// the hub another broker.
		if !seen[live.name] {
			collectHub(ch, live.name, live.current().Stats(), live.refused.snapshot())
			collectHealth(ch, live.name, live.current().Health())
		}
		seen[live.name] = true
	}
	for _, live := range allHubs() {
		if !seen[live.name] && live.away.Load() != nil {
			collectHealth(ch, live.name, errNotOpen)
		}
		seen[live.name] = true
	}
}

func collectHealth(ch chan<- prometheus.Metric, hub string, health error) {
	value := 1.0
	if health != nil {
		value = 0
	}
	ch <- prometheus.MustNewConstMetric(healthy, prometheus.GaugeValue, value, hub)
}

func collectHub(ch chan<- prometheus.Metric, hub string, stats sse.Stats, refused map[refusal]uint64) {
	gauge := func(d *prometheus.Desc, value float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, hub)
	}
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), append([]string{hub}, labels...)...)
	}
	gauge(streamsOpen, float64(stats.Streams))
	gauge(channelsKnown, float64(stats.Channels))
	gauge(keptBytes, float64(stats.KeptBytes))
	gauge(sessionsAway, float64(stats.Away))
	counter(sessionsLost, stats.Forgotten)
	counter(eventsPublished, stats.Published)
	counter(eventsDelivered, stats.Delivered)
	for reason, n := range stats.Closed {
		counter(streamsClosed, n, string(reason))
	}
	for reason, n := range stats.Resets {
		counter(resets, n, string(reason))
	}
	for reason, n := range refused {
		counter(requestsRefused, n, string(reason))
	}
}
