using System.Text;

namespace Causeway.Linux;

/// <summary>The accounts of the machine.</summary>
public static unsafe class Accounts
{
    // Groups with very many members have long entries; what does not fit here is refused (arbitrary, 16 times the usual).
    private const int EntrySize = 1 << 20;

    /// <summary>getgrnam_r(3): the number of a group.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="group">Its number.</param>
    /// <returns>Zero; ENOENT when there is no such group.</returns>
    public static SyscallResult FindGroup(string name, out uint group)
    {
        group = 0;
        byte[] buffer = new byte[EntrySize];
        Libc.GroupEntry entry;
        Libc.GroupEntry* found;
        int error;
        fixed (byte* text = Encoding.UTF8.GetBytes(name + '\0'))
        fixed (byte* room = buffer)
        {
            // This function returns the error number itself.
            error = Libc.getgrnam_r(text, &entry, room, EntrySize, &found);
        }

        if (error != 0 || found is null)
        {
            return SyscallResult.Failed(error == 0 ? Errno.ENOENT : (Errno)error);
        }

        group = entry.GroupId;
        return new SyscallResult(0);
    }
}
