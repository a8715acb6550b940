//go:build !unix || solaris || illumos || aix

package boltbroker

import "os"

// unlock does nothing, as closing the file gives back the lock here.
func unlock(*os.File) error { return nil }
