// Package sse is a hub for Server-Sent Events: publishers hand it events on
// channels, and it delivers them to any number of streams, in order, replaying
// what a stream missed while it was away. It knows HTTP but no server
// framework; package caddymodule puts it inside Caddy.
//
// Two ideas carry it. Everything published to a [Hub] enters one ordered
// record and gets one [Position] in it. A [Subscriber] is a position in that
// record together with the channels it listens to: it has no queue. Live
// delivery, replay after a reconnect and catching up after a stall are the
// same act, reading the record after a position.
//
// # Delivery
//
// An event that [Hub.Publish] accepted is written to every subscriber of its
// channels that is connected and reads, once. A subscriber for which events
// are gone (it was away for longer than they are kept, or reads slower than
// they are replaced) is told so by a reset that names the channels and the
// reason; it never sees a silent gap. An event is encoded once, and the same
// bytes are sent to everybody.
//
// # Keeping
//
// The record belongs to a [Broker]. [MemoryBroker] keeps nothing: what can be
// replayed is what the hub has in memory. A broker that keeps entries, such as
// that of package boltbroker, is read for what memory no longer has, one page
// at a time as the client reads, until memory takes over.
//
// # Ordering
//
// Positions are dense and totally ordered within an epoch, one life of the
// record. Every subscriber sees the events of its channels in that order, over
// all of its channels together, so that the id of the last event received
// resumes them all. If one Publish returned before another was called, its
// events come first. What is replayed of channels that are added to an open
// stream is the exception, see [Change].
//
// # Connections
//
// A stream may have an identity, and a user. What it gets can be changed while
// it is open, by its client ([Hub.Change]) and by those who run the hub
// ([Hub.Assign], [Hub.Kick]). A change is made at a position, as everything is:
// what the subscriber gets beside it comes without a gap. What is taken away is
// not sent any more from the moment that the call has returned, whenever it was
// published. A connection outlives its stream for a while, so that a client that
// comes back by itself gets what it had.
//
// # Concurrency
//
// All exported functions and methods may be called concurrently unless their
// documentation says otherwise. No lock is held while a stream is written to,
// and no lock of the hub is held while a caller's code runs, but for
// [SubscribeOptions] May.
//
// # Slow subscribers
//
// A subscriber that does not read stays behind. It costs its position, the
// batch that is being written (256 KiB at most, or one event), and what the
// operating system buffers for its socket, and holds up nobody. When it
// reads again it is sent, in large writes, what its channels still hold after
// its position, or a reset when that has been evicted. [StreamOptions] can
// bound how many bytes it may stay behind, and have it disconnected instead: its
// client then comes back for what is kept.
//
// # Shutdown
//
// [Hub.Drain] ends all streams, spread over a given time, and refuses new
// ones; [Hub.Close] ends what is left and returns when the hub's goroutines
// have ended, which is when all streams of [Subscriber.Direct] are closed. Those
// of [Subscriber.Stream] run on the goroutines of their HTTP handlers, which
// return soon after.
//
// # Testing
//
// The package takes its time from package time alone, so that programs built
// on it can be tested with testing/synctest. Package ssetest has a stream
// client for tests against a real server.
package sse
