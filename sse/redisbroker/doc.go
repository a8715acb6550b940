// Package redisbroker is the broker of many machines: it keeps a hub's record in
// Redis, where all nodes publish to it and follow it.
//
// # What is kept, and how
//
// All keys of a record begin with {prefix:hub}, so that they share a slot of a Cluster:
//
//	meta       hash: format, epoch, head, oldest, and what the scripts need to know
//	record     stream: the entries, under the ids <life>-<seq>
//	ids        hash: what stands for the ids of publishers -> seq; ids:older those before
//	ended      sorted set: the channels that have ended, by the seq that ended them
//	asks       stream: the newest questions of nodes to all, see [sse.SharedBroker], under <life>-<number>
//	nodes      sorted set: the nodes, by when they last told that they are alive
//	answers:…  list: the answers to a question, for some seconds
//	marks:…    string: that a session was changed, for a week
//
// A publish is one Lua script in one round trip: it refuses what comes too late for its
// channel, knows repeats, numbers the events, appends them and gives up the oldest.
// Publishes at the same time share the connection and its packets. Each node follows the
// record, and the questions of other nodes, by one blocked XREAD from the newest entry that
// it has, and tells every two seconds that it is alive. Nothing is polled: when
// there was nothing new for some seconds, one look shows that the connection and the
// record are still there.
//
// Other programs may read the stream, whose fields are t (time, Unix in microseconds), c
// (channels, separated by commas), n (name), d (data), r (retry in milliseconds), x (how
// the event ends its channels) and b (bytes up to here). Nobody else may write to it.
//
// # What is promised
//
// An answered publish survives the loss of any node of ours. What it survives of Redis is
// up to Redis: see docs/decisions. Whatever it loses, nobody is left with a hole that he
// was not told of:
//
//   - The record has a part of a random name for each of its lives, the epoch. A Redis that
//     comes back empty begins another.
//   - So does, unless [GoOn] says otherwise, a Redis that was restarted or a replica that took
//     over: what came last may be gone, and its numbers would be given to other events. Each
//     script compares the server's replication id with that of the last one, so that not even
//     the first publish afterwards comes before the new epoch.
//   - A record of which a part is missing begins another epoch too.
//
// A node that followed the old epoch is told at once: ids of the new one are larger, so that
// the XREAD that waits for the next entry of the old returns the first of the new.
//
// # When Redis is away
//
// Publishes fail with an error that matches [sse.ErrUnavailable]: at once if Redis refuses,
// after [Options.Timeout] if it is silent, and from then on at once until it answers again.
// Tails wait, and go on from where they are. Health says what does not work.
//
// It needs Redis 6.2 or what is compatible with it, such as Valkey.
package redisbroker
