// Package boltbroker is the durable broker of one machine: it keeps a hub's
// record in a single file, by way of go.etcd.io/bbolt.
//
// A publish is answered when it is on the disk: bbolt has synced the file.
// Publishes that wait at the same time are committed together, so that many
// publishers do not each wait for a sync of their own. What was answered
// survives a kill of the process and a loss of power; what was not is there
// whole or not at all.
//
// The file holds three buckets:
//
//	meta    format and version, the epoch, and the head as of the last trimming
//	record  seq -> entry, each with a checksum
//	ids     seq -> the publisher's id of the entry and its time, for some minutes
//
// What bbolt calls the sequence of a bucket is the newest seq of the record, and
// the number of ids, so that a loss of the newest of them is found.
//
// There is no index of channels in it: the whole file is read once when it is
// opened, which checks it down to the last byte in use, rebuilds every counter
// from what is kept, and makes an index in memory (some 8 bytes an event and
// channel).
//
// The oldest entries are given up in the background when there are more of
// them, or older or larger ones, than [Options] says. A bbolt file does not
// shrink, but what was given up is used again.
package boltbroker
