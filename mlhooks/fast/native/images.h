/* to [n] = from * factor */
static void scale_bytes(long n, const unsigned char *from, float factor, float *to)
{
    for (long i = 0; i < n; i++)
        to[i] = from[i] * factor;
}
