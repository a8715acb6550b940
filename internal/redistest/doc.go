// Package redistest runs real Redis servers for tests: each with a data
// directory of its own, and gone when the test ends.
package redistest
