//! Who a device is: the fleet's certificate authority, the certificates it issues, and the tokens that devices enrol with.
#![forbid(unsafe_code)]
