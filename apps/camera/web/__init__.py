"""The web page of a stream: newest pictures and statistics for any number of browsers, at the cost of one encode.

address    what `web://` URIs say            access    who may see the page: token, host, origin
newest     the newest result, encoded once   pictures  JPEG, class maps as PNG, the page's messages
figures    rates, latencies, areas           live      what each client is sent, at its own pace
codecs     what video the machine encodes    encoder   one for all who watch by WebRTC
peer       a connection of one of them       video     who joins and leaves, and what the encoder is fed
server     a thread that serves              static    the page itself
"""
