using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Fuse;

/// <summary>
/// How requests come and replies go over io_uring: what is not payload, in memory that the kernel was told of.
/// <c>fuse_uring_req_header</c>, 288 bytes. Only over /dev/fuse (since 7.42).
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseRingHeader
{
    /// <summary>The <see cref="FuseInHeader"/>; in the answer the <see cref="FuseOutHeader"/>.</summary>
    public FuseRingPart Header;

    /// <summary>The first structure of the request. What comes after it is the payload.</summary>
    public FuseRingPart Argument;

    /// <summary>What concerns the ring.</summary>
    public FuseRingEntry Entry;
}

/// <summary>Room for a structure.</summary>
[InlineArray(Bytes)]
public struct FuseRingPart
{
    /// <summary>How much: the header names it FUSE_URING_IN_OUT_HEADER_SZ and FUSE_URING_OP_IN_OUT_SZ.</summary>
    public const int Bytes = 128;

    private byte _first;
}

/// <summary>What concerns the ring. <c>fuse_uring_ent_in_out</c>, 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseRingEntry
{
    /// <summary>None are defined.</summary>
    public ulong Flags;

    /// <summary>The number by which the request is answered.</summary>
    public ulong CommitId;

    /// <summary>Bytes of the payload, of the request or of the reply.</summary>
    public uint PayloadSize;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;

    /// <summary>Reserved; zero.</summary>
    public ulong Reserved;
}

/// <summary>A command for the kernel, in the submission entry. <c>fuse_uring_cmd_req</c>, 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseRingCommand
{
    /// <summary>FUSE_IO_URING_CMD_REGISTER: makes an entry known, and waits for a request.</summary>
    public const uint Register = 1;

    /// <summary>FUSE_IO_URING_CMD_COMMIT_AND_FETCH: answers a request, and waits for the next one.</summary>
    public const uint CommitAndFetch = 2;

    /// <summary>None are defined.</summary>
    public ulong Flags;

    /// <summary><see cref="FuseRingEntry.CommitId"/> of the request that is answered.</summary>
    public ulong CommitId;

    /// <summary>The queue: requests of programs that run on the processor of that number.</summary>
    public ushort Queue;

    /// <summary>Reserved; zero.</summary>
    public ushort Padding0;

    /// <summary>Reserved; zero.</summary>
    public uint Padding1;
}
