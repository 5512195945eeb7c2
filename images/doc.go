// Package images is the vocabulary of disk images: what an image is made of, how its parts are named, hashed and
// encoded. It knows no network, no disk and no repository; every other package speaks in its types.
//
// An image is stored by position, per partition, through a mask: bytes that no file system uses read as zeros. Three
// units, each a power of two, divide a partition:
//
//	leaf   16 KiB  SHA-256 each (BEP 52)
//	tile   64 KiB  unit of compression, storage, dedupe and delta
//	piece  256 KiB - 16 MiB, chosen per image: unit of availability and forwarding
//
// One merkle tree joins them: leaves -> tile roots -> piece roots -> partition root.
package images
