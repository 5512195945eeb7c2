// Package disk is the agent's view of a machine's disks: which there are, which one a job may write, and the content of
// an image on it, tile by tile through the image's mask.
package disk
