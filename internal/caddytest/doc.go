// Package caddytest runs real Caddies for tests: in the test's own process
// ([Load]), where the race detector and leak checks see them, or as a process
// of their own ([Run]), where signals and crashes can be tried.
package caddytest
