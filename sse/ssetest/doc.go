// Package ssetest helps to test servers of event streams from outside, over
// real connections.
//
// [Open] subscribes to a URL as a browser would and returns a [Stream], whose
// methods wait for what the server should send next and fail the test when it
// sends something else. [Main] lets the tests of a package fail when goroutines
// outlive them.
package ssetest
